-- migrate:allow constraint-missing-not-valid a row for each person who chose a language: read in milliseconds
ALTER TABLE user_preference ADD CONSTRAINT user_preference_language CHECK (language ~ '^[a-z]{2}(-[A-Z]{2})?$') NOT VALID;
ALTER TABLE user_preference VALIDATE CONSTRAINT user_preference_language;
