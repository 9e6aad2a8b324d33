-- Health of an InferenceService, for Argo CD. Only what Lua has without its libraries: Argo CD opens none.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "The InferenceService is being deleted." }
end

-- A status that speaks of an earlier spec says nothing of this one: it may still be Ready=True. Of an object that the
-- operator has not seen yet observedGeneration is -1.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not acted on this spec yet." }
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end

-- Before paused and Ready: what was there before may still serve, and somebody has to act all the same.
local stalled = conditions["Stalled"]
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.reason .. ": " .. stalled.message }
end

if obj.spec.paused == true then
  return { status = "Suspended", message = "spec.paused is true: nothing is changed. Set it to false to go on." }
end

local ready = conditions["Ready"]
if ready == nil then
  return { status = "Progressing", message = "The operator has not said yet whether it is ready." }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
-- Nothing is under way, and nothing is wrong.
if ready.reason == "ScaledToZero" then
  return { status = "Suspended", message = ready.message }
end
return { status = "Progressing", message = ready.reason .. ": " .. ready.message }
