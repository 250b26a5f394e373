"""Volumes, commitments, credits of interrupted spot time, warnings of funds."""

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
