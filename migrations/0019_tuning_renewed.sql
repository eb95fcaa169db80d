-- A rung that failed and was retried with success renews the choice that was made without it.
COMMENT ON TABLE tuning IS 'Values of the recipe that were chosen by a ladder (tune in a spec), before the cells that have them were planned. A choice stays as it was made, unless a rung that had failed is retried: then the next launch makes it anew, in its place.';
