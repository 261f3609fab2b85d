CREATE TABLE auth_chains (
	event_id TEXT NOT NULL PRIMARY KEY,
	chain BIGINT NOT NULL,
	seq BIGINT NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX auth_chains_place ON auth_chains (chain, seq);

CREATE TABLE auth_links (
	chain BIGINT NOT NULL,
	seq BIGINT NOT NULL,
	to_chain BIGINT NOT NULL,
	to_seq BIGINT NOT NULL,
	PRIMARY KEY (chain, seq, to_chain)
) WITHOUT ROWID;

CREATE INDEX auth_links_above ON auth_links (to_chain, to_seq, chain, seq);

ALTER TABLE missing_parents ADD COLUMN room_num BIGINT;

CREATE INDEX missing_parents_room ON missing_parents (room_num);
