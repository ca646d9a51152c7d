if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lease lost' end
local memory = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
if redis.call('GET', KEYS[2]) ~= ARGV[2] or memory ~= ARGV[3] then return 'rewound' end
