-- Health of a ModelGateway, for Argo CD. Only what Lua has without its libraries: Argo CD opens none.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "The ModelGateway is being deleted." }
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

-- Before Ready: what was there before may still serve, and somebody has to act all the same.
local stalled = conditions["Stalled"]
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.reason .. ": " .. stalled.message }
end

local ready = conditions["Ready"]
if ready == nil then
  return { status = "Progressing", message = "The operator has not said yet whether it is ready." }
end
if ready.status ~= "True" then
  return { status = "Progressing", message = ready.reason .. ": " .. ready.message }
end
-- The gateway works, and all but the services that are named here are behind it.
local unique = conditions["NamesUnique"]
if unique ~= nil and unique.status == "False" then
  return { status = "Healthy", message = unique.reason .. ": " .. unique.message }
end
return { status = "Healthy", message = ready.message }
