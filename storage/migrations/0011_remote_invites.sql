CREATE TABLE remote_memberships (
	user_id TEXT NOT NULL,
	room_id TEXT NOT NULL,
	membership TEXT NOT NULL,
	sender TEXT NOT NULL,
	version TEXT NOT NULL,
	event_id TEXT NOT NULL,
	via TEXT NOT NULL,
	json BYTEA NOT NULL,
	stripped BYTEA NOT NULL,
	pos BIGINT NOT NULL,
	PRIMARY KEY (user_id, room_id)
) WITHOUT ROWID;
