"""Alembic operations on a database, as in the `upgrade()` of a revision: `python alembic_program.py DATABASE CODE`."""
import sys
import warnings

import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations

warnings.filterwarnings("ignore")
engine = sqlalchemy.create_engine(f"sqlite:///{sys.argv[1]}", connect_args={"timeout": 20})
with engine.connect() as connection:
    op = Operations(MigrationContext.configure(connection, opts={"render_as_batch": True}))
    exec(sys.argv[2], {"op": op, "sa": sqlalchemy, "connection": connection})
    connection.commit()
