CREATE TABLE device_keys (
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	keys BYTEA NOT NULL,
	PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

CREATE TABLE one_time_keys (
	key_num BIGINT PRIMARY KEY,
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	algorithm TEXT NOT NULL,
	key_id TEXT NOT NULL,
	key_json BYTEA NOT NULL
);

CREATE UNIQUE INDEX one_time_keys_id ON one_time_keys (user_id, device_id, algorithm, key_id);

CREATE INDEX one_time_keys_order ON one_time_keys (user_id, device_id, algorithm, key_num);

CREATE TABLE claimed_keys (
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	algorithm TEXT NOT NULL,
	key_id TEXT NOT NULL,
	hash BYTEA NOT NULL,
	claimed_ts BIGINT NOT NULL,
	PRIMARY KEY (user_id, device_id, algorithm, key_id)
) WITHOUT ROWID;

CREATE TABLE fallback_keys (
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	algorithm TEXT NOT NULL,
	key_id TEXT NOT NULL,
	key_json BYTEA NOT NULL,
	used BIGINT NOT NULL,
	PRIMARY KEY (user_id, device_id, algorithm)
) WITHOUT ROWID;

CREATE TABLE cross_signing_keys (
	user_id TEXT NOT NULL,
	usage TEXT NOT NULL,
	public_key TEXT NOT NULL,
	key_json BYTEA NOT NULL,
	PRIMARY KEY (user_id, usage)
) WITHOUT ROWID;

CREATE TABLE key_signatures (
	target_id TEXT NOT NULL,
	target_key TEXT NOT NULL,
	signer_id TEXT NOT NULL,
	signer_key TEXT NOT NULL,
	signature TEXT NOT NULL,
	pos BIGINT NOT NULL,
	PRIMARY KEY (target_id, target_key, signer_id, signer_key)
) WITHOUT ROWID;

CREATE INDEX key_signatures_signer ON key_signatures (signer_id, pos);

CREATE TABLE key_backups (
	user_id TEXT NOT NULL,
	version BIGINT NOT NULL,
	algorithm TEXT NOT NULL,
	auth_data BYTEA NOT NULL,
	etag BIGINT NOT NULL,
	key_count BIGINT NOT NULL,
	deleted BIGINT NOT NULL,
	PRIMARY KEY (user_id, version)
) WITHOUT ROWID;

CREATE TABLE key_backup_sessions (
	user_id TEXT NOT NULL,
	version BIGINT NOT NULL,
	room_id TEXT NOT NULL,
	session_id TEXT NOT NULL,
	is_verified BIGINT NOT NULL,
	first_message_index BIGINT NOT NULL,
	forwarded_count BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	session_data BYTEA NOT NULL,
	PRIMARY KEY (user_id, version, room_id, session_id)
) WITHOUT ROWID;
