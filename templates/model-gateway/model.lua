-- The first `model` at the top level of a JSON object, for what HAProxy's json_query does not read: a text with an escaped
-- slash (PHP writes every slash so), and what stands behind more than 20 levels of nesting.
-- It looks for the end of things and not for mistakes: what is no JSON is for the engine to say.

local QUOTE, BACKSLASH, BRACE, BRACKET = 34, 92, 123, 91
local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
-- Bytes of a value that are looked at: a name of 253 characters, all of them escaped.
local LONGEST = 253 * 6

-- The position of the quote that ends the text which begins at another. A search for one character is many times faster
-- than one for a quote or a backslash, and texts are what bodies are made of.
local function end_of_text(json, from)
  local at = from
  while true do
    at = json:find('"', at + 1, true)
    if not at then
      return nil
    end
    local before = at - 1
    while json:byte(before) == BACKSLASH do
      before = before - 1
    end
    if (at - before) % 2 == 1 then
      return at
    end
  end
end

local function unescape(text)
  -- In one pass: what an escaped backslash leaves is no beginning of another escape.
  return (text:gsub("\\(.)(%x?%x?%x?%x?)", function(escaped, digits)
    if escaped == "u" and #digits == 4 then
      return utf8.char(tonumber(digits, 16))
    end
    return (ESCAPES[escaped] or escaped) .. digits
  end))
end

local function find_model(json)
  local at, depth = json:match("^%s*()"), 0
  if json:byte(at) ~= BRACE then
    return nil
  end
  while true do
    at = json:find('["{}%[%]]', at)
    if not at then
      return nil
    end
    local found = json:byte(at)
    if found == QUOTE then
      local last = end_of_text(json, at)
      if not last then
        return nil
      end
      local value = depth == 1 and json:match("^%s*:%s*()", last + 1)
      if value and last - at < LONGEST and unescape(json:sub(at + 1, last - 1)) == "model" then
        local value_end = json:byte(value) == QUOTE and end_of_text(json, value)
        return value_end and unescape(json:sub(value + 1, math.min(value_end - 1, value + LONGEST))) or nil
      end
      at = last
    elseif found == BRACE or found == BRACKET then
      depth = depth + 1
    else
      depth = depth - 1
      if depth == 0 then
        return nil
      end
    end
    at = at + 1
  end
end

core.register_action("find_model", { "http-req" }, function(txn)
  local model = find_model(txn.sf:req_body())
  if model then
    txn:set_var("txn.model", model:sub(1, 254))
  end
end)
