CREATE VIEW user_directory AS
SELECT u.id,
       u.tenant_id,
       u.display_name,
       u.email,
       u.state,
       (SELECT array_agg(r.name ORDER BY r.id)
          FROM user_role ur
          JOIN role r ON r.id = ur.role_id
         WHERE ur.user_id = u.id) AS roles
  FROM app_user u
 WHERE u.state <> 'left';

CREATE FUNCTION touch_updated_at() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END;
$$;

CREATE TRIGGER app_user_touch
    BEFORE UPDATE ON app_user
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
