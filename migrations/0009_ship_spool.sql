-- Workers that reach no database: their launcher stores what they leave in the attempt's folder.

ALTER TABLE attempt ADD COLUMN ship text NOT NULL DEFAULT 'database' CHECK (ship IN ('database', 'spool'));
COMMENT ON COLUMN attempt.ship IS 'How its events get here: the worker stores them (database), or leaves them in the folder and the launcher does (spool). For the latter the fence is given before the worker starts.';
