# METADATA
# title: Checks of the settings
# description: |
#   What is wrong in the YAML of tenants and operator. A bundle with errors is not activated; warnings are shown. Asked
#   once when a bundle is loaded, with the names of the hosted tenants as input.tenants.
package hansa.lint

# METADATA
# description: Values that cannot be used, each with its path and what is expected there.
errors contains problem if some problem in data.hansa.lint.shape.problems

# METADATA
# description: Settings that work and hardly mean what was meant.
warnings contains problem if some problem in data.hansa.lint.meaning.problems
