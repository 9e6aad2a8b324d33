-- Health of a Benchmark, for Argo CD. Only what Lua has without its libraries: Argo CD opens none.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "The Benchmark is being deleted." }
end

-- Of an object that the operator has not seen yet observedGeneration is -1.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not acted on this spec yet." }
end

local message = nil
for _, condition in ipairs(obj.status.conditions or {}) do
  if condition.type == "Complete" then
    message = condition.reason .. ": " .. condition.message
  end
end

-- As Argo CD has it for a Job: one that ended without what it was made for is Degraded, and nothing goes on by itself.
local phase = obj.status.phase
if phase == "Failed" or phase == "Inconclusive" then
  return { status = "Degraded", message = message or (phase .. ", and the operator has not said why.") }
end
if phase == "Succeeded" then
  return { status = "Healthy", message = message or "It has ended with a result." }
end

local progress = obj.status.progress
if phase == "Running" and progress ~= nil then
  local at = progress.stage .. " " .. progress.percent .. " %"
  if progress.workload ~= nil and progress.load ~= nil then
    at = progress.workload .. ", " .. progress.load .. ": " .. at
  end
  return { status = "Progressing", message = at }
end
return { status = "Progressing", message = message or "It has not begun." }
