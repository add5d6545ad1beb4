-- Run once by the image, when its volume is empty. The role is no superuser, as on Cloud SQL: it owns the four databases,
-- and CREATEDB is what a rollback needs to restore beside them.
CREATE ROLE mobius LOGIN CREATEDB PASSWORD 'mobius';
CREATE DATABASE mobius OWNER mobius;
CREATE DATABASE mobius_rag OWNER mobius;
CREATE DATABASE mobius_chat OWNER mobius;
CREATE DATABASE mobius_user OWNER mobius;
