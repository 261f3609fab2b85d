CREATE TABLE room_aliases (
	alias TEXT NOT NULL PRIMARY KEY,
	server TEXT NOT NULL,
	room_id TEXT NOT NULL,
	creator TEXT NOT NULL,
	created_ts BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX room_aliases_room ON room_aliases (room_id, server);

CREATE TABLE published_rooms (
	tenant TEXT NOT NULL,
	room_id TEXT NOT NULL,
	publisher TEXT NOT NULL,
	created_ts BIGINT NOT NULL,
	PRIMARY KEY (tenant, room_id)
) WITHOUT ROWID;

CREATE INDEX published_rooms_room ON published_rooms (room_id);

CREATE TABLE user_directory (
	user_id TEXT NOT NULL PRIMARY KEY,
	tenant TEXT NOT NULL,
	class TEXT NOT NULL,
	local_text TEXT NOT NULL,
	name_text TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX user_directory_class ON user_directory (class);
