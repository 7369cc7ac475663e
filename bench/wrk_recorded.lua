-- The requests of `recorded_pushes.py`: the file that is the first argument has each after its length and a
-- line break. Each is sent once; those that are answered with 201 are counted.
local requests, last, threads = {}, 0, {}
created, missing = 0, 0

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  local file = io.open(args[1], "rb")
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    requests[#requests + 1] = file:read(length)
  end
  file:close()
end

function request()
  last = last + 1
  if last > #requests then
    missing = missing + 1
    last = 1
  end
  return requests[last]
end

function response(status)
  if status == 201 then created = created + 1 end
end

function done(summary, latency, _)
  local errors, made, lacking = summary.errors, 0, 0
  for _, thread in ipairs(threads) do
    made = made + thread:get("created")
    lacking = lacking + thread:get("missing")
  end
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status + lacking
  io.write(string.format('{"sent": %d, "seconds": %f, "median": %f, "p99": %f, "failed": %d}\n',
    made, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    failed + summary.requests - made))
end
