"""Engines: who does the tasks of a run, in which process, and what happens to a task whose worker is lost."""
