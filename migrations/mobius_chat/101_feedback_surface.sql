-- Where feedback was given. Until now the first part of "client" had to be parsed for it: 'web/3.1', 'ios/2.0; beta'.
-- migrate:allow missing-where every feedback has a surface
-- migrate:allow adding-not-nullable-field some thousand rows, all of which were just written

ALTER TABLE chat_feedback ADD COLUMN surface text;

UPDATE chat_feedback
   SET surface = CASE split_part(client, '/', 1)
                     WHEN 'web' THEN 'web'
                     WHEN 'ios' THEN 'app'
                     WHEN 'android' THEN 'app'
                     ELSE 'api'
                 END;

ALTER TABLE chat_feedback
    ALTER COLUMN surface SET DEFAULT 'web',
    ALTER COLUMN surface SET NOT NULL;

-- migrate:down
ALTER TABLE chat_feedback DROP COLUMN surface;
