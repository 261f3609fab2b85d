CREATE TABLE bridges (
	bridge_id TEXT NOT NULL PRIMARY KEY,
	tenant TEXT NOT NULL,
	suspended BIGINT NOT NULL,
	pos BIGINT NOT NULL,
	sending BIGINT NOT NULL,
	delivered_ts BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX users_appservice ON users (appservice, user_id) WHERE appservice <> '';
