"""Durable jobs: work submitted to the registry, run by runners on any machine, finished despite crashes.

A job and its result are rows of the catalog. `engine` (DBOS) runs the steps of a job in order, and `runner`
is `adaptry work`. `step_runner` runs each step in a separate process: `step_launcher` starts it (by forking
`fork_server` if possible), `step_process` reads its output, `step_process_main` is its main program, and
`ipc` defines the messages between the two. `dispatch` maps each kind of job to its handler.
"""
