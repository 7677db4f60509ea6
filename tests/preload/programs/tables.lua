-- Tables, strings, closures, coroutines, the collector: lua's allocator is one realloc function.
-- tables.lua COUNT
local count = tonumber(arg[1]) or 10000
local state = 42
local function number(bound)
    state = (state * 1103515245 + 12345) % 2147483648
    return state // 256 % bound
end

local live, total = {}, 0
for i = 1, count do
    local key = string.rep(string.char(97 + number(26)), 1 + number(40)) .. i % 1000
    live[key] = { id = i, name = key:upper(), parts = { number(10), number(10), number(10) } }
    if i % 3 == 0 then live[key] = nil end
    total = total + #key
end
local keys = {}
for key in pairs(live) do keys[#keys + 1] = key end
table.sort(keys)
local buffer = {}
for i, key in ipairs(keys) do
    buffer[#buffer + 1] = ("%s=%d/%d"):format(key, live[key].id, live[key].parts[1])
end
local text = table.concat(buffer, ";")
local replaced, times = text:gsub("(%a+)(%d+)=", function(a, b) return b .. #a .. ":" end)
local made = {}
for i = 1, 200 do
    made[i] = coroutine.wrap(function()
        local own = {}
        for j = 1, 50 do
            own[j] = #("v"):rep(j) * i
            coroutine.yield(own[j])
        end
        return -1
    end)
end
local sum = 0
for j = 1, 51 do for i = 1, 200 do sum = sum + made[i]() end end
live, buffer = nil, nil
collectgarbage()
collectgarbage("generational")
local big = {}
for i = 1, 18 do big[i] = ("z"):rep(2 ^ i) end
print(#keys, total, #replaced, times, sum, #table.concat(big))
print(replaced:sub(1, 200))
