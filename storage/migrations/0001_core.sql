CREATE TABLE log_position (
	id BIGINT PRIMARY KEY,
	pos BIGINT NOT NULL,
	backfill BIGINT NOT NULL
);

INSERT INTO log_position (id, pos, backfill) VALUES (1, 0, 0);

CREATE TABLE rooms (
	room_num BIGINT PRIMARY KEY,
	room_id TEXT NOT NULL UNIQUE,
	version TEXT NOT NULL,
	tenant TEXT NOT NULL,
	head TEXT NOT NULL,
	extremities TEXT NOT NULL,
	depth BIGINT NOT NULL,
	state_root BYTEA NOT NULL,
	last_pos BIGINT NOT NULL,
	state_pos BIGINT NOT NULL
);

CREATE TABLE events (
	pos BIGINT PRIMARY KEY,
	event_id TEXT NOT NULL UNIQUE,
	room_num BIGINT NOT NULL,
	type TEXT NOT NULL,
	state_key TEXT,
	sender TEXT NOT NULL,
	depth BIGINT NOT NULL,
	origin_server_ts BIGINT NOT NULL,
	received_ts BIGINT NOT NULL,
	flags BIGINT NOT NULL,
	auth_rank BIGINT,
	state_root BYTEA,
	replaces TEXT,
	redacted_by TEXT,
	device_id TEXT,
	txn_id TEXT,
	decision_id TEXT,
	json BYTEA NOT NULL,
	signatures BYTEA
);

CREATE INDEX events_room ON events (room_num, pos);

CREATE TABLE event_auth (
	event_id TEXT NOT NULL,
	auth_id TEXT NOT NULL,
	PRIMARY KEY (event_id, auth_id)
) WITHOUT ROWID;

CREATE INDEX event_auth_children ON event_auth (auth_id, event_id);

CREATE TABLE missing_parents (
	event_id TEXT NOT NULL,
	child_id TEXT NOT NULL,
	PRIMARY KEY (event_id, child_id)
) WITHOUT ROWID;

CREATE TABLE pending_redactions (
	target_id TEXT NOT NULL,
	redaction_id TEXT NOT NULL,
	PRIMARY KEY (target_id, redaction_id)
) WITHOUT ROWID;

CREATE TABLE state_nodes (
	hash BYTEA NOT NULL PRIMARY KEY,
	data BYTEA NOT NULL
) WITHOUT ROWID;

CREATE TABLE current_state (
	room_num BIGINT NOT NULL,
	type TEXT NOT NULL,
	state_key TEXT NOT NULL,
	event_id TEXT NOT NULL,
	auth_rank BIGINT NOT NULL,
	pos BIGINT NOT NULL,
	PRIMARY KEY (room_num, type, state_key)
) WITHOUT ROWID;

CREATE TABLE memberships (
	room_num BIGINT NOT NULL,
	user_id TEXT NOT NULL,
	membership TEXT NOT NULL,
	sender TEXT NOT NULL,
	event_id TEXT NOT NULL,
	auth_rank BIGINT NOT NULL,
	pos BIGINT NOT NULL,
	forgotten BIGINT NOT NULL,
	PRIMARY KEY (room_num, user_id)
) WITHOUT ROWID;

CREATE INDEX memberships_user ON memberships (user_id, room_num);

CREATE TABLE client_txns (
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	scope TEXT NOT NULL,
	txn_id TEXT NOT NULL,
	result TEXT NOT NULL,
	created_ts BIGINT NOT NULL,
	PRIMARY KEY (user_id, device_id, scope, txn_id)
) WITHOUT ROWID;

CREATE TABLE receipts (
	room_num BIGINT NOT NULL,
	user_id TEXT NOT NULL,
	receipt_type TEXT NOT NULL,
	thread_id TEXT NOT NULL,
	event_id TEXT NOT NULL,
	event_pos BIGINT NOT NULL,
	ts BIGINT NOT NULL,
	pos BIGINT NOT NULL,
	PRIMARY KEY (room_num, user_id, receipt_type, thread_id)
) WITHOUT ROWID;

CREATE INDEX receipts_pos ON receipts (pos);

CREATE INDEX receipts_room ON receipts (room_num, pos);

CREATE TABLE account_data (
	user_id TEXT NOT NULL,
	room_id TEXT NOT NULL,
	type TEXT NOT NULL,
	content BYTEA NOT NULL,
	pos BIGINT NOT NULL,
	PRIMARY KEY (user_id, room_id, type)
) WITHOUT ROWID;

CREATE INDEX account_data_pos ON account_data (pos);

CREATE INDEX account_data_user ON account_data (user_id, pos);

CREATE TABLE to_device (
	pos BIGINT PRIMARY KEY,
	user_id TEXT NOT NULL,
	device_id TEXT NOT NULL,
	sender TEXT NOT NULL,
	type TEXT NOT NULL,
	content BYTEA NOT NULL
);

CREATE INDEX to_device_user ON to_device (user_id, device_id, pos);

CREATE TABLE device_list_changes (
	user_id TEXT NOT NULL PRIMARY KEY,
	pos BIGINT NOT NULL
) WITHOUT ROWID;

CREATE INDEX device_list_changes_pos ON device_list_changes (pos);

CREATE TABLE notices (
	pos BIGINT PRIMARY KEY,
	name TEXT NOT NULL,
	ref TEXT NOT NULL,
	created_ts BIGINT NOT NULL
);

CREATE TABLE cursors (
	name TEXT NOT NULL PRIMARY KEY,
	pos BIGINT NOT NULL
) WITHOUT ROWID;
