"""Time bands, calendars, overrides and more meters of the price book."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
