-- One of every kind of thing that a database can hold and that an owner without superuser can make; at least one of
-- each with a comment, with privileges, with a name that needs quotes. The roles `zoo_reader` and `zoo_other` exist
-- before, and the owner is a member of the latter.

COMMENT ON SCHEMA public IS 'the usual place';
GRANT USAGE ON SCHEMA public TO zoo_reader;
CREATE SCHEMA zoo;
COMMENT ON SCHEMA zoo IS 'animals; quotes '' and "double" and a back\slash';
CREATE SCHEMA "Übel & Söhne";
GRANT USAGE ON SCHEMA zoo, "Übel & Söhne" TO zoo_reader;
CREATE SCHEMA empty;

ALTER DEFAULT PRIVILEGES IN SCHEMA zoo GRANT SELECT ON TABLES TO zoo_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA zoo GRANT USAGE ON SEQUENCES TO zoo_reader;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Extensions that a database's owner may make: they are trusted.
CREATE EXTENSION citext;
CREATE EXTENSION hstore SCHEMA zoo;
COMMENT ON EXTENSION citext IS 'text without case, in our words';

-- Types
CREATE TYPE zoo.mood AS ENUM ('sad', 'ok', 'it''s "happy"');
ALTER TYPE zoo.mood ADD VALUE 'meh' BEFORE 'ok';
COMMENT ON TYPE zoo.mood IS 'how it feels';
CREATE TYPE zoo.size AS (width int, height numeric(10, 2), "Label" text COLLATE "C");
COMMENT ON COLUMN zoo.size.width IS 'in mm';
CREATE TYPE zoo.spans AS RANGE (subtype = float8, subtype_diff = float8mi);
REVOKE USAGE ON TYPE zoo.spans FROM PUBLIC;
CREATE DOMAIN zoo.positive AS integer DEFAULT 1 NOT NULL CONSTRAINT over_zero CHECK (VALUE > 0);
CREATE DOMAIN zoo.code AS varchar(8) CHECK (VALUE IN ('a', 'b', 'it''s'));
CREATE DOMAIN zoo.codes AS zoo.code[] CHECK (cardinality(VALUE) < 9);
CREATE TYPE zoo.nested AS (inner_size zoo.size, codes zoo.codes, mood zoo.mood[]);
ALTER DOMAIN zoo.code ADD CONSTRAINT later CHECK (VALUE <> 'z') NOT VALID;
COMMENT ON CONSTRAINT over_zero ON DOMAIN zoo.positive IS 'never zero';
COMMENT ON DOMAIN zoo.positive IS 'more than nothing';
COMMENT ON TYPE zoo.spans IS 'from here to there';
GRANT USAGE ON TYPE zoo.mood TO zoo_reader WITH GRANT OPTION;

-- Collations and conversions
CREATE COLLATION zoo.bytes FROM "C";
CREATE COLLATION zoo.number_wise (provider = icu, locale = 'en-u-kn-true', deterministic = false);
COMMENT ON COLLATION zoo.bytes IS 'by bytes';
CREATE CONVERSION zoo.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
COMMENT ON CONVERSION zoo.latin IS 'old letters';

-- Functions of every form
CREATE FUNCTION zoo.twice(i integer) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE BEGIN ATOMIC
    SELECT i * 2 WHERE i::varchar IN ('1', '2', 'it''s') OR true;
END;
CREATE FUNCTION zoo.body(text DEFAULT 'x; $$ y', VARIADIC rest int[] DEFAULT '{}') RETURNS SETOF text
    LANGUAGE plpgsql COST 7 ROWS 3 SECURITY DEFINER SET search_path = zoo, pg_temp SET work_mem = '8MB' AS $body$
BEGIN
    -- a comment; with a semicolon
    RETURN NEXT $1 || '$$';
END
$body$;
CREATE FUNCTION zoo.overloaded(OUT a int, OUT b text) RETURNS record LANGUAGE sql AS 'SELECT 1, ''one''';
CREATE FUNCTION zoo.overloaded(x zoo.size) RETURNS TABLE (w int) LANGUAGE sql AS 'SELECT ($1).width';
CREATE PROCEDURE zoo.proceed(INOUT n integer) LANGUAGE plpgsql AS 'BEGIN n := n + 1; COMMIT; END';
COMMENT ON FUNCTION zoo.twice(integer) IS 'doubles';
COMMENT ON PROCEDURE zoo.proceed(integer) IS 'commits';
GRANT EXECUTE ON FUNCTION zoo.twice(integer) TO zoo_reader;
GRANT EXECUTE ON PROCEDURE zoo.proceed(integer) TO PUBLIC;
CREATE FUNCTION zoo.add_to(state numeric, value numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE AS 'SELECT $1 + coalesce($2, 0)';
CREATE FUNCTION zoo.take_from(state numeric, value numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE AS 'SELECT $1 - coalesce($2, 0)';
CREATE AGGREGATE zoo.total(numeric) (SFUNC = zoo.add_to, STYPE = numeric, INITCOND = '0', PARALLEL = safe,
    COMBINEFUNC = zoo.add_to, MSFUNC = zoo.add_to, MINVFUNC = zoo.take_from, MSTYPE = numeric, MINITCOND = '0');
CREATE AGGREGATE zoo.in_order(ORDER BY numeric) (SFUNC = zoo.add_to, STYPE = numeric);
COMMENT ON AGGREGATE zoo.total(numeric) IS 'adds up';

-- Operators and casts
CREATE FUNCTION zoo.same_size(zoo.size, zoo.size) RETURNS boolean LANGUAGE sql IMMUTABLE AS
    'SELECT ($1).width = ($2).width';
CREATE FUNCTION zoo.other_size(zoo.size, zoo.size) RETURNS boolean LANGUAGE sql IMMUTABLE AS
    'SELECT ($1).width <> ($2).width';
CREATE OPERATOR zoo.=== (FUNCTION = zoo.same_size, LEFTARG = zoo.size, RIGHTARG = zoo.size,
    COMMUTATOR = OPERATOR(zoo.===), NEGATOR = OPERATOR(zoo.!==), RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR zoo.!== (FUNCTION = zoo.other_size, LEFTARG = zoo.size, RIGHTARG = zoo.size,
    NEGATOR = OPERATOR(zoo.===));
COMMENT ON OPERATOR zoo.=== (zoo.size, zoo.size) IS 'as wide as';
CREATE FUNCTION zoo.width_of(zoo.size) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT ($1).width';
CREATE CAST (zoo.size AS integer) WITH FUNCTION zoo.width_of(zoo.size) AS ASSIGNMENT;
CREATE CAST (zoo.size AS json) WITH INOUT;
COMMENT ON CAST (zoo.size AS integer) IS 'its width';

-- Text search
CREATE TEXT SEARCH DICTIONARY zoo.plain (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION zoo.search (COPY = simple);
ALTER TEXT SEARCH CONFIGURATION zoo.search ALTER MAPPING FOR asciiword, word WITH zoo.plain, english_stem;
ALTER TEXT SEARCH CONFIGURATION zoo.search DROP MAPPING FOR url, host;
COMMENT ON TEXT SEARCH CONFIGURATION zoo.search IS 'words';
COMMENT ON TEXT SEARCH DICTIONARY zoo.plain IS 'stop words';

-- Sequences
CREATE SEQUENCE zoo.fresh;
CREATE SEQUENCE zoo.down AS smallint INCREMENT -3 MINVALUE -100 MAXVALUE 10 START 10 CYCLE CACHE 5;
SELECT nextval('zoo.down'), nextval('zoo.down');
CREATE SEQUENCE zoo.set_only;
SELECT setval('zoo.set_only', 77, false);
CREATE UNLOGGED SEQUENCE zoo.unlogged_one;
COMMENT ON SEQUENCE zoo.down IS 'counts down';
GRANT SELECT, UPDATE ON SEQUENCE zoo.down TO zoo_reader;

-- Tables
CREATE TABLE zoo.keepers (
    id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 10) PRIMARY KEY,
    serial serial,
    email citext UNIQUE,
    gone int,
    name text COLLATE zoo.bytes NOT NULL DEFAULT 'nobody''s',
    kind varchar NOT NULL DEFAULT 'a' CHECK (kind IN ('a', 'b', 'c')),
    other_kind varchar(3) CONSTRAINT "not (ARRAY" CHECK (other_kind NOT IN ('x', 'it''s', '])::text[]')),
    fixed char(2) CHECK (fixed IN ('aa', 'bb')),
    code zoo.code,
    many zoo.positive DEFAULT 3,
    mood zoo.mood DEFAULT 'ok',
    born timestamptz DEFAULT now(),
    rare boolean GENERATED ALWAYS AS (kind NOT IN ('a', 'b')) STORED,
    doubled integer GENERATED ALWAYS AS (zoo.twice(length(kind))) STORED,
    size zoo.size,
    by_default integer GENERATED BY DEFAULT AS IDENTITY,
    UNIQUE NULLS NOT DISTINCT (code, mood),
    UNIQUE (serial) INCLUDE (name) DEFERRABLE INITIALLY DEFERRED
) WITH (fillfactor = 70, toast.autovacuum_enabled = false, autovacuum_vacuum_scale_factor = 0.3);
ALTER TABLE zoo.keepers DROP COLUMN gone;
ALTER TABLE zoo.keepers ALTER name SET STORAGE EXTERNAL, ALTER name SET STATISTICS 300, ALTER name SET COMPRESSION pglz;
ALTER TABLE zoo.keepers ALTER mood SET (n_distinct = 3);
COMMENT ON TABLE zoo.keepers IS E'two\nlines';
COMMENT ON COLUMN zoo.keepers.name IS 'as on the door';
COMMENT ON CONSTRAINT "not (ARRAY" ON zoo.keepers IS 'odd name';
INSERT INTO zoo.keepers (email, name, kind, other_kind, fixed, code, many, mood, born, size) VALUES
    ('A@example.com', 'Ärmel', 'a', 'q', 'aa', 'a', 1, 'it''s "happy"', '2020-02-29 12:00+05', '(1,2.50,"x ""y"" \\z")'),
    ('b@example.com', E'tab\there\nand back\\slash', 'b', NULL, 'bb', NULL, 2, NULL, 'infinity', '(,,)'),
    (NULL, '', 'c', '', NULL, 'it''s', 3, 'sad', '-infinity', NULL);

CREATE TABLE zoo.cages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    keeper bigint REFERENCES zoo.keepers ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE INITIALLY IMMEDIATE,
    second bigint,
    during tstzrange NOT NULL,
    area box,
    CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&) WHERE (area IS NOT NULL),
    CONSTRAINT nonsense CHECK (second IS NULL OR keeper IS NOT NULL) NO INHERIT
);
ALTER TABLE zoo.cages ADD CONSTRAINT unchecked FOREIGN KEY (second) REFERENCES zoo.keepers (id) NOT VALID;
INSERT INTO zoo.cages VALUES
    ('00000000-0000-0000-0000-000000000001', 100, NULL, '[2020-01-01,2020-02-01)', '(1,1),(0,0)'),
    ('00000000-0000-0000-0000-000000000002', NULL, NULL, 'empty', NULL);

CREATE TABLE zoo.deferred (
    id int PRIMARY KEY,
    place int UNIQUE DEFERRABLE,
    other int REFERENCES zoo.deferred (id) MATCH FULL DEFERRABLE INITIALLY DEFERRED,
    during int4range,
    CONSTRAINT apart EXCLUDE USING gist (during WITH &&) DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO zoo.deferred VALUES (1, 7, 2, '[1,5)'), (2, 8, 1, '[5,9)');
COMMENT ON CONSTRAINT apart ON zoo.deferred IS 'never at once';

CREATE TABLE zoo."Every Value" (
    "Id" integer PRIMARY KEY,
    "select" boolean,
    s smallint, b bigint, n numeric, n2 numeric(20, 5), r real, d double precision, m money,
    t text, v varchar(10), c char(5), nm name, bin bytea,
    j json, jb jsonb, x xml,
    day date, tm time, tmz timetz, ts timestamp(3), tsz timestamptz, i interval day to second,
    u uuid, ip inet, net cidr, mac macaddr,
    bits bit(4), vbits bit varying,
    p point, circ circle, pth path,
    texts text[], grid integer[][], moods zoo.mood[], sizes zoo.size[],
    r4 int4range, mr int4multirange, sp zoo.spans,
    words tsvector, query tsquery, kv zoo.hstore, ct citext,
    class regclass, l pg_lsn, o oid
);
INSERT INTO zoo."Every Value" ("Id") VALUES (0);
INSERT INTO zoo."Every Value" VALUES
    (1, true, -32768, 9223372036854775807, 'NaN', 0.10000, 'NaN', 'Infinity', 12.34,
     E'\u0001 \U0001F418 \\N', 'ten', 'ab', 'name', '\x00ff27',
     '{"a" : 1,  "a":2}', '{"b": [1, null, "\u00e9"], "n": 1.0}', '<a b="c">&amp;</a>',
     'infinity', '24:00', '12:00:00.5+02', '1999-12-31 23:59:59.999', '4713-01-01 BC', '-1 day 02:03:04.5',
     '123e4567-e89b-12d3-a456-426614174000', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03',
     '1010', '', '(0.1,-2)', '<(1,2),3>', '[(0,0),(1,1)]',
     '{NULL,"NULL","",a\"b}', '[0:1][2:3]={{1,2},{3,4}}', '{sad}', '{"(1,2.00,)"}',
     '[1,)', '{[1,2),[5,9)}', '(0.1,0.30000000000000004]',
     'a:1A b:2', 'a & !b', '"k"=>NULL', 'MiXed',
     'zoo.keepers', '16/B374D848', 4294967295),
    (2, false, 1, -1, 'Infinity', -99999.12345, 1e-45, 4.9406564584124654e-324, -0.01,
     '', '', '', '', '',
     'null', 'null', NULL,
     '-infinity', '00:00', '00:00-15:59', '-infinity', 'infinity', '1000000:00:00',
     NULL, '255.255.255.255', '::/0', NULL,
     NULL, '1', '(Infinity,NaN)', NULL, '((0,0))',
     '{}', '{}', NULL, '{NULL}', 'empty', '{}', '(,)', '', '', '', '',
     'pg_catalog.pg_class', '0/0', 0);
COMMENT ON TABLE zoo."Every Value" IS '';
COMMENT ON COLUMN zoo."Every Value"."select" IS 'a keyword';
GRANT SELECT ("Id", "select"), UPDATE (t) ON zoo."Every Value" TO zoo_reader;
GRANT INSERT, TRUNCATE ON zoo."Every Value" TO zoo_reader WITH GRANT OPTION;
REVOKE DELETE ON zoo."Every Value" FROM release;

CREATE TABLE "Übel & Söhne"."Straße ""7""" (
    "größe in µm" int CHECK ("größe in µm" > 0), "a""b" text, 象 text DEFAULT '象'
);
INSERT INTO "Übel & Söhne"."Straße ""7""" VALUES (1, 'x', 'ゾウ'), (1, 'x', 'ゾウ'), (NULL, NULL, NULL);
CREATE INDEX "Maß" ON "Übel & Söhne"."Straße ""7""" ("größe in µm" DESC NULLS LAST);
CREATE TABLE empty.no_columns ();
INSERT INTO empty.no_columns DEFAULT VALUES;
REVOKE ALL ON empty.no_columns FROM release;
GRANT SELECT ON empty.no_columns TO release;
CREATE UNLOGGED TABLE zoo.unlogged (i int);
INSERT INTO zoo.unlogged SELECT generate_series(1, 3);
CREATE TABLE zoo.typed OF zoo.size (width WITH OPTIONS PRIMARY KEY);
CREATE TABLE zoo.wide (i int, filler text);
INSERT INTO zoo.wide SELECT i, repeat(md5(i::text), 300) FROM generate_series(1, 20) AS i;
ALTER TABLE zoo.wide REPLICA IDENTITY FULL;

-- Inheritance
CREATE TABLE zoo.animals (id int NOT NULL, name text DEFAULT 'x', CONSTRAINT named CHECK (name <> ''));
CREATE TABLE zoo.tagged (tag text);
CREATE TABLE zoo.birds (wings int DEFAULT 2, name text DEFAULT 'bird') INHERITS (zoo.animals, zoo.tagged);
INSERT INTO zoo.animals VALUES (1, 'cow');
INSERT INTO zoo.birds VALUES (2, 'owl', 'nocturnal');

-- Partitions
CREATE TABLE zoo.visits (id int NOT NULL, day date NOT NULL, kind varchar CHECK (kind IN ('x', 'y')),
    keeper bigint REFERENCES zoo.keepers,
    PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE zoo.visits_2020 PARTITION OF zoo.visits FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE zoo.visits_2021 PARTITION OF zoo.visits FOR VALUES FROM ('2021-01-01') TO (MAXVALUE)
    PARTITION BY RANGE (id);
CREATE TABLE zoo.visits_2021_x PARTITION OF zoo.visits_2021 (kind DEFAULT 'x') FOR VALUES FROM (MINVALUE) TO (1000);
CREATE TABLE zoo.listed (kind text, n int) PARTITION BY LIST (kind);
CREATE TABLE zoo.listed_x PARTITION OF zoo.listed FOR VALUES IN ('x', 'it''s', NULL);
CREATE TABLE zoo.visits_rest PARTITION OF zoo.visits DEFAULT;
CREATE TABLE zoo.hashed (id int, t text) PARTITION BY HASH (id, lower(t), (t::varchar IN ('a', 'b')));
CREATE TABLE zoo.hashed_0 PARTITION OF zoo.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE zoo.hashed_1 (t text, id int);
ALTER TABLE zoo.hashed ATTACH PARTITION zoo.hashed_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX visits_kind ON zoo.visits (kind) WHERE kind IN ('x', 'y');
INSERT INTO zoo.visits VALUES (1, '2020-05-05', 'y', 100), (2, '2021-05-05', 'x', NULL), (3, '1999-01-01', NULL, 110);
INSERT INTO zoo.hashed SELECT i, i::text FROM generate_series(1, 10) AS i;

-- Indexes
CREATE INDEX by_lower ON zoo.keepers (lower(name) text_pattern_ops, mood DESC) INCLUDE (born)
    WITH (fillfactor = 60) WHERE kind IN ('a', 'b') AND name <> 'x';
CREATE UNIQUE INDEX keeper_identity ON zoo.keepers (serial);
ALTER TABLE zoo.keepers REPLICA IDENTITY USING INDEX keeper_identity;
ALTER INDEX zoo.by_lower ALTER COLUMN 1 SET STATISTICS 42;
CREATE INDEX by_json ON zoo."Every Value" USING gin (jb jsonb_path_ops);
CREATE INDEX by_day ON zoo."Every Value" USING brin (day) WITH (pages_per_range = 4);
CREATE INDEX by_hash ON zoo."Every Value" USING hash (t);
CREATE INDEX by_number ON zoo."Every Value" (t COLLATE zoo.number_wise);
CREATE INDEX by_id ON zoo.wide (i);
CLUSTER zoo.wide USING by_id;
COMMENT ON INDEX zoo.by_lower IS 'for the search';
CREATE STATISTICS zoo.together (dependencies, mcv) ON kind, mood FROM zoo.keepers;
CREATE STATISTICS zoo.expression ON (lower(name)), (kind IN ('a', 'b')) FROM zoo.keepers;
ALTER STATISTICS zoo.together SET STATISTICS 55;
COMMENT ON STATISTICS zoo.together IS 'they go together';
COMMENT ON TABLE zoo.visits_2020 IS 'a part';
COMMENT ON COLUMN zoo.visits.day IS 'by which it is divided';

-- Views
CREATE VIEW zoo.names AS SELECT id, name, kind IN ('a', 'b') AS common FROM zoo.keepers WHERE kind NOT IN ('c', 'd');
CREATE VIEW zoo.checked WITH (security_barrier, check_option = local) AS SELECT * FROM zoo.animals WHERE id > 0;
ALTER VIEW zoo.checked ALTER name SET DEFAULT 'from view';
CREATE RECURSIVE VIEW zoo.counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 10;
CREATE VIEW zoo.on_a_view AS
    WITH w AS MATERIALIZED (SELECT n.*, row_number() OVER (PARTITION BY n.common ORDER BY n.id DESC) FROM zoo.names AS n)
    SELECT w.*, a.name AS animal, (SELECT zoo.total(v.id) FROM zoo.visits AS v) AS total,
        CASE WHEN w.common THEN 'y' ELSE 'n' END AS flag, zoo.twice(1) AS two
    FROM w LEFT JOIN zoo.animals AS a USING (id) WHERE a.name IS DISTINCT FROM 'x' AND w.name LIKE 'A%';
CREATE MATERIALIZED VIEW zoo.summary AS SELECT kind, count(*) FROM zoo.keepers GROUP BY kind;
CREATE UNIQUE INDEX summary_kind ON zoo.summary (kind);
CREATE MATERIALIZED VIEW zoo.stale AS SELECT 1 AS one WITH NO DATA;
COMMENT ON VIEW zoo.names IS 'who';
COMMENT ON COLUMN zoo.names.common IS 'or rare';
COMMENT ON MATERIALIZED VIEW zoo.summary IS 'how many';
GRANT SELECT (name) ON zoo.names TO zoo_reader;

-- Rules, triggers, policies
CREATE RULE no_delete AS ON DELETE TO zoo.animals WHERE old.name::varchar IN ('cow', 'owl') DO INSTEAD NOTHING;
CREATE RULE into_names AS ON INSERT TO zoo.names DO INSTEAD INSERT INTO zoo.keepers (name) VALUES (new.name);
ALTER TABLE zoo.animals DISABLE RULE no_delete;
COMMENT ON RULE no_delete ON zoo.animals IS 'they stay';
CREATE FUNCTION zoo.look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(new, old); END';
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OF name, kind ON zoo.keepers FOR EACH ROW
    WHEN (new.kind IN ('a', 'b')) EXECUTE FUNCTION zoo.look('one', 'it''s');
CREATE TRIGGER after_statement AFTER UPDATE ON zoo.keepers REFERENCING OLD TABLE AS was NEW TABLE AS "Is"
    FOR EACH STATEMENT EXECUTE FUNCTION zoo.look();
CREATE CONSTRAINT TRIGGER checks AFTER INSERT ON zoo.keepers DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION zoo.look();
CREATE TRIGGER on_visit AFTER INSERT ON zoo.visits FOR EACH ROW EXECUTE FUNCTION zoo.look();
CREATE TRIGGER instead INSTEAD OF UPDATE ON zoo.checked FOR EACH ROW EXECUTE FUNCTION zoo.look();
CREATE TRIGGER on_replica AFTER DELETE ON zoo.cages FOR EACH ROW EXECUTE FUNCTION zoo.look();
ALTER TABLE zoo.keepers DISABLE TRIGGER after_statement;
ALTER TABLE zoo.cages ENABLE REPLICA TRIGGER on_replica;
ALTER TABLE zoo.visits ENABLE ALWAYS TRIGGER on_visit;
COMMENT ON TRIGGER before_row ON zoo.keepers IS 'first';
ALTER TABLE zoo.cages ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON zoo.cages AS RESTRICTIVE FOR UPDATE TO zoo_reader, release
    USING (keeper IS NOT NULL) WITH CHECK (keeper > 0);
CREATE POLICY common ON zoo.keepers FOR SELECT USING (kind IN ('a', 'b'));
CREATE POLICY everybody ON zoo.cages USING (true);
COMMENT ON POLICY own ON zoo.cages IS 'only their own';

-- Publications
CREATE PUBLICATION some_of_it FOR TABLE zoo.keepers (id, name, serial) WHERE (serial > 0), zoo.animals
    WITH (publish = 'insert, truncate', publish_via_partition_root = true);
COMMENT ON PUBLICATION some_of_it IS 'for the others';

-- Large objects
SELECT lo_from_bytea(424242, '\x00010203');
SELECT lo_from_bytea(424243, decode(repeat('ab', 100000), 'hex'));
COMMENT ON LARGE OBJECT 424242 IS 'large';
GRANT SELECT ON LARGE OBJECT 424242 TO zoo_reader;

-- Something that belongs to somebody else, as far as an owner may give it away: to a role that it is a member of. The
-- schema, too: a restore gives a table away before it restores the privileges that would allow it.
GRANT CREATE, USAGE ON SCHEMA zoo TO zoo_other;
CREATE SCHEMA others;
ALTER SCHEMA others OWNER TO zoo_other;
CREATE TABLE others.given (id int GENERATED ALWAYS AS IDENTITY, t text);
ALTER TABLE others.given OWNER TO zoo_other;
CREATE TYPE others.given_type AS ENUM ();
ALTER TYPE others.given_type OWNER TO zoo_other;
INSERT INTO others.given (t) VALUES ('theirs');
