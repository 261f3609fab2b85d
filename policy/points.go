package policy

// Point is a decision point: a named place where the server asks before it does something.
type Point string

// The decision points. The rules of the point `room.invite` live in the packages hansa.room.invite,
// operator.room.invite and tenants["name"].room.invite.
const (
	AccountRegister Point = "account.register"
	AccountLogin    Point = "account.login"
	AccountManage   Point = "account.manage"
	Contact         Point = "contact"
	RoomCreate      Point = "room.create"
	RoomInvite      Point = "room.invite"
	RoomJoin        Point = "room.join"
	RoomKnock       Point = "room.knock"
	RoomLeave       Point = "room.leave"
	RoomModerate    Point = "room.moderate"
	RoomRead        Point = "room.read"
	RoomState       Point = "room.state"
	RoomPublish     Point = "room.publish"
	RoomAlias       Point = "room.alias"
	RoomUpgrade     Point = "room.upgrade"
	EventSend       Point = "event.send"
	EventReceive    Point = "event.receive"
	EventRedact     Point = "event.redact"
	EventServe      Point = "event.serve"
	DirectorySearch Point = "directory.search"
	DirectoryRooms  Point = "directory.rooms"
	ProfileRead     Point = "profile.read"
	ProfileWrite    Point = "profile.write"
	PresenceRead    Point = "presence.read"
	PresenceWrite   Point = "presence.write"
	TypingSend      Point = "typing.send"
	ReceiptSend     Point = "receipt.send"
	KeysQuery       Point = "keys.query"
	KeysClaim       Point = "keys.claim"
	KeysSign        Point = "keys.sign"
	ToDeviceSend    Point = "todevice.send"
	MediaUpload     Point = "media.upload"
	MediaDownload   Point = "media.download"
	PushRegister    Point = "push.register"
	ReportSend      Point = "report.send"
	SearchMessages  Point = "search.messages"
	URLPreview      Point = "url.preview"
	AdminAction     Point = "admin.action"
	PolicyChange    Point = "policy.change"
	PartnerChange   Point = "partner.change"
	BridgeAct       Point = "bridge.act"

	FederationInbound  Point = "federation.inbound"
	FederationOutbound Point = "federation.outbound"
)

// Kind says how a point is asked.
type Kind string

// The kinds of decision points.
const (
	// KindAct is asked per call.
	KindAct Kind = "act"
	// KindPair is about two parties: contact is asked first, and the point's own rules narrow it.
	KindPair Kind = "pair"
	// KindFilter decides about each entry of a list; denials are counted, not recorded one by one.
	KindFilter Kind = "filter"
)

// PointInfo describes a decision point.
type PointInfo struct {
	// Point is the name.
	Point Point `json:"point"`
	// Kind says how it is asked.
	Kind Kind `json:"kind"`
	// Doc is one sentence about when it is asked and about whom.
	Doc string `json:"doc"`
	// Fail says what happens when the engine cannot answer: `closed`, or `retry` where a remote server asks again (503).
	Fail string `json:"fail"`
	// Asks names whose tenants are asked: a space-separated list of subject, target, room, addressed.
	Asks string `json:"asks"`
}

const (
	failClosed = "closed"
	failRetry  = "retry"

	asksOwn = "subject addressed"
)

// Points lists every decision point in a fixed order.
func Points() []PointInfo {
	own := func(p Point, doc string) PointInfo {
		return PointInfo{p, KindAct, doc, failClosed, asksOwn}
	}
	act := func(p Point, doc string) PointInfo {
		return PointInfo{p, KindAct, doc, failClosed, "subject room addressed"}
	}
	pair := func(p Point, doc string) PointInfo {
		return PointInfo{p, KindPair, doc, failClosed, "subject target room addressed"}
	}
	filter := func(p Point, doc string) PointInfo {
		return PointInfo{p, KindFilter, doc, failClosed, "subject target room addressed"}
	}
	retry := func(p Point, doc string) PointInfo { return PointInfo{p, KindAct, doc, failRetry, "addressed"} }
	return []PointInfo{
		own(AccountRegister, "An account is about to be made, by the person, an admin, a bridge or a script; subject is who asks, account the new one."),
		own(AccountLogin, "A session is about to begin or a token to be refreshed; subject is the user."),
		own(AccountManage, "A user changes or closes the own account: password, third-party identifiers, deactivation."),
		filter(Contact, "May subject know of target? Asked before everything that shows one user to another, once per pair of audience classes."),
		retry(FederationInbound, "The server subject makes a request of the tenant; asked before its keys are looked up, and before anything is read or stored. event.membership is `leave` where it only winds down."),
		retry(FederationOutbound, "The tenant is about to make a request of the server in server.name; asked before a name is resolved, a connection opened or anything queued."),
		own(RoomCreate, "A room is about to be made by subject; room holds the wanted settings."),
		pair(RoomInvite, "Subject invites target into room, in whatever way: invite, createRoom, state event, upgrade, or from a remote server."),
		act(RoomJoin, "Subject joins room; contact with everyone inside is asked as well."),
		act(RoomKnock, "Subject asks to be let into room; contact with everyone inside is asked as well."),
		own(RoomLeave, "Subject leaves, rejects or forgets room. Winding down should stay possible."),
		act(RoomModerate, "Subject kicks, bans or unbans target in room; event.membership is the new membership."),
		{RoomRead, KindFilter, "Subject reads from room: sync, messages, state, members, context; asked for each room that would be shown.", failClosed, asksOwn},
		own(RoomState, "Subject sends a state event that is not a membership into room."),
		act(RoomPublish, "Subject changes whether room stands in a public room list."),
		act(RoomAlias, "Subject makes, removes or resolves an alias of room."),
		own(RoomUpgrade, "Subject replaces room by a new version of it."),
		own(EventSend, "A local user sends a message event into room."),
		retry(EventReceive, "An event of a remote user arrives for room; subject is its sender, whoever delivers it. A denied event is withheld."),
		retry(EventServe, "The server subject asks the tenant for events or state of room."),
		own(EventRedact, "Subject redacts an event of target (or an own one) in room."),
		filter(DirectorySearch, "Subject searches the user directory; entries are filtered by contact."),
		filter(DirectoryRooms, "Subject reads a public room list, hierarchy or summary; asked for each room that would be shown."),
		pair(ProfileRead, "Subject reads the profile of target."),
		own(ProfileWrite, "Subject changes the own profile."),
		pair(PresenceRead, "Presence of target is about to be shown to subject."),
		own(PresenceWrite, "Subject sets the own presence."),
		act(TypingSend, "Subject's typing is about to be shown in room."),
		act(ReceiptSend, "Subject's read receipt or marker is about to be stored or shown in room."),
		pair(KeysQuery, "Subject asks for the devices and identity keys of target."),
		pair(KeysClaim, "Subject claims a one-time key of target."),
		pair(KeysSign, "Subject uploads a signature on a key of target."),
		pair(ToDeviceSend, "Subject sends a to-device message to target; event.type is its type."),
		own(MediaUpload, "Subject uploads media."),
		pair(MediaDownload, "Subject fetches media that target uploaded, or (without a target) media of the server in media.origin."),
		own(PushRegister, "Subject registers a push gateway; media and room are absent, server.name is the gateway's host."),
		own(ReportSend, "Subject reports an event, a room or a user."),
		own(SearchMessages, "Subject searches messages; asked for each room that would be searched."),
		own(URLPreview, "Subject asks for a preview of a link; server.name is its host."),
		own(AdminAction, "Subject does something with admin rights; admin.action names it."),
		own(PolicyChange, "Subject changes rules or data of the policy."),
		own(PartnerChange, "Subject proposes, approves, suspends or ends an agreement; server.name is the partner."),
		own(BridgeAct, "An application service acts: subject is the ghost or bot, bridge.id the service."),
	}
}
