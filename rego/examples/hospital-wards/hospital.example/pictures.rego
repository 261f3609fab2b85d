# METADATA
# title: Students upload nothing
package tenants["hospital.example"].media.upload

deny contains {"code": "no_uploads", "message": "Students cannot send files."} if "students" in input.subject.pools
