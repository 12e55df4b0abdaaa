-- Layout 2: ranges of logs, and what was said of them.
CREATE TABLE ranges (
    number bigint NOT NULL,
    device bytea NOT NULL,
    incarnation bigint NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    alone boolean NOT NULL,
    head bytea NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (number, device, incarnation, last)
);
ALTER TABLE ranges ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE said (
    number bigint NOT NULL,
    device bytea NOT NULL,
    incarnation bigint NOT NULL,
    last bigint NOT NULL,
    said_by bytea NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (number, device, incarnation, last, said_by)
);
