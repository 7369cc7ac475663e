"""Jobs as values: tasks, states, schedules."""
