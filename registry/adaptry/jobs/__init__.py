"""Durable jobs: work submitted to the registry, run by runners on any machine, finished despite crashes.

A job and its result are rows of the catalog. `engine` (DBOS) takes a job from step to step, `runner` is
`adaptry work`, and `step_runner` runs each step in a process of its own: `step_launcher` starts it, as a copy
of `fork_server` where it can, `step_process` reads its output, `step_process_main` is what it runs, and `ipc`
defines the messages between the two. `dispatch` maps each kind of job to its handler.
"""
