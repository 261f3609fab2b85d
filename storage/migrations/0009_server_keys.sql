CREATE TABLE server_keys (
	server TEXT NOT NULL,
	key_id TEXT NOT NULL,
	public_key BYTEA NOT NULL,
	valid_from BIGINT NOT NULL,
	valid_until BIGINT NOT NULL,
	old BIGINT NOT NULL,
	source TEXT NOT NULL,
	fetched_ts BIGINT NOT NULL,
	PRIMARY KEY (server, key_id, public_key)
) WITHOUT ROWID;
CREATE INDEX server_keys_fetched ON server_keys (fetched_ts);
CREATE TABLE server_key_answers (
	server TEXT NOT NULL PRIMARY KEY,
	answer BYTEA NOT NULL,
	valid_until BIGINT NOT NULL,
	fetched_ts BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX server_key_answers_fetched ON server_key_answers (fetched_ts);
