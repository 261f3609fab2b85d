CREATE TABLE decisions (
	seq BIGINT PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	ts BIGINT NOT NULL,
	tenant TEXT NOT NULL,
	point TEXT NOT NULL,
	revision TEXT NOT NULL,
	allow BIGINT NOT NULL,
	subject TEXT NOT NULL,
	target TEXT NOT NULL,
	room_id TEXT NOT NULL,
	detail BYTEA NOT NULL,
	chain BYTEA NOT NULL
);

CREATE INDEX decisions_tenant ON decisions (tenant, seq);

CREATE INDEX decisions_subject ON decisions (subject, seq);

CREATE TABLE decision_chain (
	id BIGINT PRIMARY KEY,
	seq BIGINT NOT NULL,
	chain BYTEA NOT NULL
);

INSERT INTO decision_chain (id, seq, chain) VALUES (1, 0, '');

CREATE TABLE agreements (
	owner TEXT NOT NULL,
	partner TEXT NOT NULL,
	id TEXT NOT NULL,
	state TEXT NOT NULL,
	scope BYTEA NOT NULL,
	valid_from BIGINT NOT NULL,
	valid_until BIGINT NOT NULL,
	changed_by TEXT NOT NULL,
	changed_ts BIGINT NOT NULL,
	PRIMARY KEY (owner, partner)
) WITHOUT ROWID;
