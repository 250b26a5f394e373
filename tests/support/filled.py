"""Rows for every table of earlier revisions of the schema, in SQL that those revisions know."""

# By the oldest revision that has the tables. Two tenants: one bought, one waits.
FILL = {
    "0001": """
        INSERT INTO tenants (id, name, status) VALUES
            ('00000000-0000-7000-8000-000000000001', 'acme', 'active'),
            ('00000000-0000-7000-8000-000000000002', 'idle', 'suspended');
        INSERT INTO api_keys (id, tenant_id, public_id, digest, name)
        SELECT ('00000000-0000-7000-8000-0000000001' || right(id::text, 2))::uuid, id,
            right(id::text, 2), '\\x00', 'key' FROM tenants;
        INSERT INTO admin_keys (id, public_id, digest, name)
        VALUES ('00000000-0000-7000-8000-000000000003', 'root', '\\x00', 'root');
        INSERT INTO price_versions
            (id, model, path, hit_rate_p, miss_rate_p, output_rate_p, effective_from)
        VALUES ('00000000-0000-7000-8000-000000000004', 'm', 'serverless', 1, 2, 3, now());
        INSERT INTO accounts (id, kind, tenant_id, balance_p, held_p)
        SELECT ('00000000-0000-7000-8000-0000000002' || right(id::text, 2))::uuid, 'tenant', id,
            CASE name WHEN 'acme' THEN 970 ELSE 0 END, CASE name WHEN 'acme' THEN 50 ELSE 0 END
        FROM tenants;
        UPDATE accounts SET balance_p = CASE kind WHEN 'revenue' THEN 30 ELSE -1000 END
        WHERE tenant_id IS NULL;
        INSERT INTO gateway_epochs (id, gateway)
        VALUES ('00000000-0000-7000-8000-000000000005', 'local');
        INSERT INTO holds (request_id, tenant_id, api_key_id, account_id, epoch_id,
            price_version_id, amount_p, prompt_tokens, completion_tokens, state)
        SELECT request_id::uuid, k.tenant_id, k.id, a.id, e.id, p.id, 50, 10, 10, state
        FROM (VALUES ('00000000-0000-7000-8000-000000000011', 'settled'),
            ('00000000-0000-7000-8000-000000000012', 'open')) AS request(request_id, state),
            api_keys k JOIN accounts a ON a.tenant_id = k.tenant_id, gateway_epochs e,
            price_versions p WHERE a.balance_p > 0 AND p.model = 'm';
        INSERT INTO ledger_transactions (id, kind, tenant_id, request_id, reason, author)
        SELECT posted.id::uuid, kind, t.id, request_id::uuid, 'r', 'a'
        FROM (VALUES ('00000000-0000-7000-8000-000000000021', 'top_up', NULL),
            ('00000000-0000-7000-8000-000000000022', 'charge',
             '00000000-0000-7000-8000-000000000011')) AS posted(id, kind, request_id),
            tenants t WHERE t.name = 'acme';
        INSERT INTO ledger_entries
            (transaction_id, account_id, amount_p, token_class, tokens, rate_p)
        SELECT t.id, a.id, moved.amount_p, token_class, tokens, rate_p
        FROM (VALUES ('top_up', 'tenant', 1000, NULL, NULL::bigint, NULL::bigint),
            ('top_up', 'funding', -1000, NULL, NULL, NULL),
            ('charge', 'tenant', -30, 'output', 10, 3), ('charge', 'revenue', 30, NULL, NULL, NULL))
            AS moved(kind, account, amount_p, token_class, tokens, rate_p)
        JOIN ledger_transactions t ON t.kind = moved.kind
        JOIN accounts a ON a.kind = moved.account AND (a.tenant_id IS NULL OR a.balance_p > 0);
        INSERT INTO usage_events (request_id, tenant_id, api_key_id, model, path, thinking,
            streamed, hit_tokens, miss_tokens, output_tokens, reasoning_tokens, finish_reason,
            started_at, price_version_id, charge_p)
        SELECT request_id, tenant_id, api_key_id, 'm', 'serverless', false, true, 0, 0, 10, 0,
            'stop', created_at, price_version_id, 30 FROM holds WHERE state = 'settled';
        INSERT INTO usage_staging (request_id, tenant_id, api_key_id, model, path, thinking,
            streamed, hit_tokens, miss_tokens, output_tokens, reasoning_tokens, finish_reason,
            started_at, price_version_id)
        SELECT request_id, tenant_id, api_key_id, 'm', 'serverless', false, true, 0, 0, 10, 0,
            'stop', created_at, price_version_id FROM holds WHERE state = 'open'
    """,
    "0003": """
        INSERT INTO gpu_price_versions (id, configuration, kind, rate_p_per_hour, effective_from)
        VALUES ('00000000-0000-7000-8000-000000000031', 'h200-x4', 'spot', 7200000, now());
        INSERT INTO gpu_configurations (id, body, position) VALUES ('h200-x4', '{"gpus": 4}', 0);
        INSERT INTO deployments (id, tenant_id, namespace, name, path, managed, state, spec,
            generation, out_of_funds, status, observed_generation)
        SELECT '00000000-0000-7000-8000-000000000032', id, 'n', 'bot', 'bare', 'row', 'active',
            '{"a": 1}', 1, false, '{}', 0 FROM tenants WHERE name = 'acme';
        INSERT INTO gpu_intervals (id, replica, tenant_id, deployment_id, deployment, path,
            configuration, gpus, spot, rate_p_per_hour, started_at, proven_until, proven_ms,
            billed_ms, billed_p, waived_p)
        SELECT '00000000-0000-7000-8000-000000000033', 'bot-0', tenant_id, id, 'n/bot', 'bare',
            'h200-x4', 4, true, 7200000, now(), now(), 5000, 1000, 0, 2000 FROM deployments
    """,
}
