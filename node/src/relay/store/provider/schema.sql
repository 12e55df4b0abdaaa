-- Layout 1 of a provider's records. What shipped never changes: the next layout is a step of its own.
-- A vault is named by its number in all tables but those of vaults, receipts and invitations; no number is used twice.
CREATE TABLE vaults (
    vault bytea PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    epoch bytea NOT NULL,
    quota bigint NOT NULL,
    added_ms bigint NOT NULL,
    entries bigint NOT NULL DEFAULT 0,
    entry_bytes bigint NOT NULL DEFAULT 0,
    blobs bigint NOT NULL DEFAULT 0,
    blob_bytes bigint NOT NULL DEFAULT 0,
    grants bigint NOT NULL DEFAULT 0,
    grant_bytes bigint NOT NULL DEFAULT 0,
    statement_counter bigint NOT NULL DEFAULT 0,
    statement bytea
);
CREATE TABLE invitations (
    id bytea PRIMARY KEY,
    proof bytea NOT NULL,
    quota bigint NOT NULL,
    made_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    used_by bytea,
    used_ms bigint
);
CREATE INDEX invitations_expiry ON invitations (expires_ms);
CREATE TABLE receipts (
    vault bytea PRIMARY KEY,
    at_ms bigint NOT NULL,
    receipt bytea NOT NULL
);
CREATE TABLE erasing (number bigint PRIMARY KEY);
CREATE TABLE members (
    number bigint NOT NULL,
    device bytea NOT NULL,
    vault bytea NOT NULL,
    PRIMARY KEY (number, device)
);
CREATE INDEX members_device ON members (device, vault);
CREATE TABLE seen (
    number bigint NOT NULL,
    device bytea NOT NULL,
    at_ms bigint NOT NULL,
    PRIMARY KEY (number, device)
);
CREATE TABLE grants (
    number bigint NOT NULL,
    place bigint NOT NULL,
    id bytea NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (number, place),
    UNIQUE (number, id)
);
CREATE TABLE heads (
    number bigint NOT NULL,
    device bytea NOT NULL,
    incarnation bigint NOT NULL,
    seq bigint NOT NULL,
    header bytea NOT NULL,
    PRIMARY KEY (number, device, incarnation)
);
CREATE TABLE entries (
    number bigint NOT NULL,
    device bytea NOT NULL,
    incarnation bigint NOT NULL,
    seq bigint NOT NULL,
    header bytea NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (number, device, incarnation, seq)
);
-- Sealed bytes do not get smaller.
ALTER TABLE entries ALTER COLUMN body SET STORAGE EXTERNAL;
-- A counter is kept as its value minus 2^63, which keeps the order of all u64.
CREATE TABLE held (
    number bigint NOT NULL,
    device bytea NOT NULL,
    counter bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (number, device)
);
-- state: 0 its object is being written, 1 in use, 2 its object is to go
CREATE TABLE packs (
    pack bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT now(),
    len bigint NOT NULL DEFAULT 0,
    live bigint NOT NULL DEFAULT 0
);
CREATE INDEX packs_number ON packs (number);
CREATE INDEX packs_passing ON packs (since) WHERE state <> 1;
CREATE INDEX packs_wasteful ON packs (number) WHERE state = 1 AND live * 2 < len;
CREATE INDEX packs_small ON packs (number) WHERE state = 1 AND len < 1048576;
CREATE TABLE blobs (
    number bigint NOT NULL,
    id bytea NOT NULL,
    pack bigint NOT NULL,
    place bigint NOT NULL,
    len bigint NOT NULL,
    PRIMARY KEY (number, id)
);
CREATE INDEX blobs_pack ON blobs (pack);
CREATE TABLE released (
    number bigint NOT NULL,
    id bytea NOT NULL,
    device bytea NOT NULL,
    at_ms bigint NOT NULL,
    PRIMARY KEY (number, id, device)
);
