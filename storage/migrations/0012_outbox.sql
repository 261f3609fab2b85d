CREATE TABLE outbox_destinations (
	tenant TEXT NOT NULL,
	destination TEXT NOT NULL,
	pos BIGINT NOT NULL,
	sending BIGINT NOT NULL,
	newest BIGINT NOT NULL,
	behind BIGINT NOT NULL,
	failures BIGINT NOT NULL,
	retry_ts BIGINT NOT NULL,
	failed_ts BIGINT NOT NULL,
	last_error TEXT NOT NULL,
	PRIMARY KEY (tenant, destination)
) WITHOUT ROWID;

CREATE TABLE outbox_rooms (
	destination TEXT NOT NULL,
	room_num BIGINT NOT NULL,
	since BIGINT NOT NULL,
	until BIGINT NOT NULL,
	PRIMARY KEY (destination, room_num)
) WITHOUT ROWID;

CREATE INDEX outbox_rooms_room ON outbox_rooms (room_num, destination);

CREATE TABLE outbox_edus (
	pos BIGINT PRIMARY KEY,
	tenant TEXT NOT NULL,
	destination TEXT NOT NULL,
	edu_type TEXT NOT NULL,
	edu_key TEXT NOT NULL,
	content BYTEA NOT NULL,
	created_ts BIGINT NOT NULL
);

CREATE INDEX outbox_edus_destination ON outbox_edus (tenant, destination, pos);

CREATE INDEX outbox_edus_key ON outbox_edus (tenant, destination, edu_type, edu_key) WHERE edu_key <> '';

CREATE TABLE outbox_quarantine (
	tenant TEXT NOT NULL,
	destination TEXT NOT NULL,
	pos BIGINT NOT NULL,
	item TEXT NOT NULL,
	status BIGINT NOT NULL,
	message TEXT NOT NULL,
	content BYTEA,
	created_ts BIGINT NOT NULL,
	PRIMARY KEY (tenant, destination, pos)
) WITHOUT ROWID;
