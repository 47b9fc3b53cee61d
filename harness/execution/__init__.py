"""One experiment carried out: sampled, timed and scored, in one process or in many."""
