"""Durable jobs: long work that is asked for here, done by runners anywhere, and done to its end whatever dies.

`tasks` says what can be asked, `records` what is answered, `board` is the part of the waist about it. What a job comes to is
a row of the catalog; `engine` (DBOS) carries it from step to step, `runner` is `adaptry work`, and each step computes in a
child process (`child`), which `children` starts and listens to.
"""
