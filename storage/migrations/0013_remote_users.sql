CREATE TABLE remote_device_lists (
	user_id TEXT NOT NULL PRIMARY KEY,
	stream_id BIGINT NOT NULL,
	fresh BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	retry_ts BIGINT NOT NULL,
	failures BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX remote_device_lists_due ON remote_device_lists (retry_ts) WHERE fresh = 0;

CREATE TABLE remote_devices (
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	display_name TEXT NOT NULL,
	keys BYTEA NOT NULL,
	PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

CREATE TABLE received_to_device (
	sender TEXT NOT NULL,
	message_id TEXT NOT NULL,
	received_ts BIGINT NOT NULL,
	PRIMARY KEY (sender, message_id)
) WITHOUT ROWID;

CREATE INDEX received_to_device_ts ON received_to_device (received_ts);

CREATE TABLE announced_lists (
	user_id TEXT NOT NULL PRIMARY KEY,
	stream_id BIGINT NOT NULL,
	keys_hash BYTEA NOT NULL
) WITHOUT ROWID;

CREATE TABLE announced_devices (
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	hash BYTEA NOT NULL,
	PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

CREATE TABLE remote_media (
	server TEXT NOT NULL,
	media_id TEXT NOT NULL,
	size BIGINT NOT NULL,
	used_ts BIGINT NOT NULL,
	PRIMARY KEY (server, media_id)
) WITHOUT ROWID;

CREATE INDEX remote_media_used ON remote_media (used_ts);
