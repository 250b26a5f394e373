"""Tokens on the dedicated path: free, since the GPU time is what is paid.

One price version covers every model there, so that holds and usage point at a price as always. Its
id is a UUIDv7 of the moment it holds from.
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_price_versions_path"), "price_versions")
    op.create_check_constraint(
        op.f("ck_price_versions_path"), "price_versions", "path IN ('serverless', 'dedicated')"
    )
    op.execute(
        "INSERT INTO price_versions"
        " (id, model, path, hit_rate_p, miss_rate_p, output_rate_p, effective_from)"
        " VALUES ('019b76da-a800-7000-8000-000000000001', '*', 'dedicated', 0, 0, 0,"
        " '2026-01-01T00:00:00Z')"
    )


def downgrade() -> None:
    """Raises: IntegrityError, when requests were served on the dedicated path."""
    op.execute("ALTER TABLE price_versions DISABLE TRIGGER append_only")
    op.execute("DELETE FROM price_versions WHERE path = 'dedicated'")
    op.execute("ALTER TABLE price_versions ENABLE TRIGGER append_only")
    op.drop_constraint(op.f("ck_price_versions_path"), "price_versions")
    op.create_check_constraint(
        op.f("ck_price_versions_path"), "price_versions", "path IN ('serverless')"
    )
