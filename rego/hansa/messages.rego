# METADATA
# title: Messages
# description: |
#   The code and the sentence for each check of the library. People read the sentence in their client, so it says what
#   is not possible and never why a certain other person, room or server is out of reach.
package hansa.messages

# METADATA
# description: For a check without an entry of its own.
unknown := {"code": "refused", "message": "This is not allowed."}

# METADATA
# description: Check name to code and sentence.
catalogue := {
	"accounts.self": {"code": "not_yours", "message": "You can only do this with your own account."},
	"admin.action": {"code": "missing_role", "message": "Your role does not allow this action."},
	"admin.approved": {"code": "approval_needed", "message": "This action needs a reason and a second person who approves."},
	"admin.scope": {"code": "other_tenant", "message": "You can only administer your own organisation."},
	"agreements.directory": {"code": "feature_not_agreed", "message": "The agreement with this organisation does not cover directories."},
	"agreements.media": {"code": "feature_not_agreed", "message": "The agreement with this organisation does not cover files."},
	"agreements.messages": {"code": "feature_not_agreed", "message": "The agreement with this organisation does not cover messages."},
	"agreements.pair": {"code": "no_agreement", "message": "There is no agreement that covers these two people."},
	"agreements.presence": {"code": "feature_not_agreed", "message": "The agreement with this organisation does not cover presence."},
	"agreements.profiles": {"code": "feature_not_agreed", "message": "The agreement with this organisation does not cover profiles."},
	"agreements.server": {"code": "no_agreement", "message": "There is no active agreement with this server."},
	"bridges.contact": {"code": "bridge_closed", "message": "This bridge does not connect these two people."},
	"bridges.permitted": {"code": "bridge_not_permitted", "message": "This bridge may not do this."},
	"contact.either": {"code": "no_contact", "message": "You cannot reach this person."},
	"contact.pair": {"code": "no_contact", "message": "You cannot reach this person."},
	"contact.recipient": {"code": "no_contact", "message": "You cannot reach this person or this room."},
	"contact.uploader": {"code": "no_contact", "message": "You cannot reach the person who sent this file."},
	"contact.room": {"code": "mixed_room", "message": "This room holds people who may not meet."},
	"content.encryption": {"code": "encryption_rule", "message": "The encryption of this room does not follow the rules."},
	"content.mimetype": {"code": "file_type", "message": "Files of this type are not allowed."},
	"content.msgtype": {"code": "message_type", "message": "Messages of this type are not allowed."},
	"content.type": {"code": "event_type", "message": "Events of this type are not allowed."},
	"domains.room": {"code": "domain_refused", "message": "This room holds a server that is not allowed."},
	"domains.server": {"code": "domain_refused", "message": "This server is not allowed."},
	"domains.subject": {"code": "domain_refused", "message": "This server is not allowed."},
	"domains.target": {"code": "domain_refused", "message": "This server is not allowed."},
	"media.origin": {"code": "wrong_origin", "message": "This file does not come from the server that was judged."},
	"pools.pair": {"code": "pools_apart", "message": "The pools of these two people are kept apart."},
	"previews.permitted": {"code": "previews_off", "message": "Previews of this address are not allowed."},
	"profiles.writable": {"code": "field_locked", "message": "This part of the profile is kept by your organisation."},
	"push.permitted": {"code": "gateway_refused", "message": "This push gateway is not allowed."},
	"rooms.alias": {"code": "may_not_alias", "message": "You may not give rooms an address."},
	"rooms.create": {"code": "may_not_create", "message": "You may not create rooms."},
	"rooms.federation": {"code": "internal_room", "message": "This room is internal to one organisation."},
	"rooms.history": {"code": "history_visibility", "message": "This history visibility is not allowed."},
	"rooms.invite": {"code": "may_not_invite", "message": "You may not invite people."},
	"rooms.join_rule": {"code": "join_rule", "message": "This way of joining is not allowed."},
	"rooms.partner_history": {"code": "history_visibility", "message": "People of other organisations may be only in rooms that do not show them the past."},
	"rooms.public": {"code": "may_not_open", "message": "You may not make a room public."},
	"rooms.publish": {"code": "may_not_publish", "message": "You may not list rooms in the directory."},
	"rooms.readable": {"code": "not_a_member", "message": "You cannot read this room."},
	"rooms.removal": {"code": "may_not_remove", "message": "You may not remove people from this room."},
	"rooms.size": {"code": "room_full", "message": "This room has as many members as allowed."},
	"rooms.type": {"code": "room_type", "message": "Rooms of this type are not allowed."},
	"rooms.version": {"code": "room_version", "message": "Rooms of this version are not allowed."},
	"sessions.hours": {"code": "outside_hours", "message": "Logging in is not possible at this time."},
	"sessions.network": {"code": "outside_network", "message": "Logging in is not possible from this network."},
	"sessions.people": {"code": "may_not_login", "message": "You may not log in."},
	"subjects.named": {"code": "no_subject", "message": "It is not known who asks."},
	"subjects.own_tenant": {"code": "other_tenant", "message": "You can only do this in your own organisation."},
	"subjects.server": {"code": "kind_refused", "message": "Only a server can ask for this."},
	"subjects.subject": {"code": "kind_refused", "message": "This kind of account may not do this."},
	"subjects.registrant": {"code": "kind_refused", "message": "This kind of account may not register others."},
	"subjects.target": {"code": "kind_refused", "message": "This kind of account cannot be reached."},
	"subjects.target_own": {"code": "other_tenant", "message": "Accounts are made in the own organisation only."},
	"whitelist.newcomer": {"code": "not_listed", "message": "This account is not on the list of people who may have one."},
	"whitelist.subject": {"code": "not_listed", "message": "Your account is not enabled."},
	"whitelist.target": {"code": "no_such_person", "message": "You cannot reach this person."},
}
