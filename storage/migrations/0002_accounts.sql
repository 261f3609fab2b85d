CREATE TABLE users (
	user_id TEXT NOT NULL PRIMARY KEY,
	tenant TEXT NOT NULL,
	kind TEXT NOT NULL,
	admin BIGINT NOT NULL,
	listed BIGINT NOT NULL,
	locked BIGINT NOT NULL,
	suspended BIGINT NOT NULL,
	deactivated BIGINT NOT NULL,
	password TEXT NOT NULL,
	appservice TEXT NOT NULL,
	pools TEXT NOT NULL,
	groups_in TEXT NOT NULL,
	roles TEXT NOT NULL,
	attributes TEXT NOT NULL,
	created_ts BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX users_tenant ON users (tenant, user_id);

CREATE TABLE devices (
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	display_name TEXT NOT NULL,
	last_seen_ip TEXT NOT NULL,
	last_seen_agent TEXT NOT NULL,
	last_seen_ts BIGINT NOT NULL,
	created_ts BIGINT NOT NULL,
	PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

CREATE TABLE access_tokens (
	token_hash BYTEA NOT NULL PRIMARY KEY,
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	parent_hash BYTEA,
	expires_ts BIGINT NOT NULL,
	created_ts BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);

CREATE TABLE refresh_tokens (
	token_hash BYTEA NOT NULL PRIMARY KEY,
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	parent_hash BYTEA,
	spent BIGINT NOT NULL,
	used_ts BIGINT NOT NULL,
	created_ts BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX refresh_tokens_device ON refresh_tokens (user_id, device_id);

CREATE TABLE uia_sessions (
	id_hash BYTEA NOT NULL PRIMARY KEY,
	owner TEXT NOT NULL,
	user_id TEXT NOT NULL,
	tenant TEXT NOT NULL,
	request_mac BYTEA NOT NULL,
	completed TEXT NOT NULL,
	created_ts BIGINT NOT NULL,
	expires_ts BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX uia_sessions_owner ON uia_sessions (owner, created_ts);

CREATE INDEX uia_sessions_expires ON uia_sessions (expires_ts);

CREATE TABLE registration_tokens (
	tenant TEXT NOT NULL,
	token_hash BYTEA NOT NULL,
	hint TEXT NOT NULL,
	uses_allowed BIGINT NOT NULL,
	uses BIGINT NOT NULL,
	expires_ts BIGINT NOT NULL,
	created_ts BIGINT NOT NULL,
	PRIMARY KEY (tenant, token_hash)
) WITHOUT ROWID;

CREATE TABLE used_nonces (
	nonce_hash BYTEA NOT NULL PRIMARY KEY,
	expires_ts BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX used_nonces_expires ON used_nonces (expires_ts);

CREATE TABLE profiles (
	user_id TEXT NOT NULL,
	field TEXT NOT NULL,
	value BYTEA NOT NULL,
	PRIMARY KEY (user_id, field)
) WITHOUT ROWID;

CREATE TABLE filters (
	user_id TEXT NOT NULL,
	filter_id TEXT NOT NULL,
	definition BYTEA NOT NULL,
	created_ts BIGINT NOT NULL,
	PRIMARY KEY (user_id, filter_id)
) WITHOUT ROWID;
