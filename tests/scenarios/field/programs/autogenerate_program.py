"""What Alembic would generate for a database that fits its models: `python autogenerate_program.py DATABASE [filtered]`."""
import sys

import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext


def include_name(name, kind, _):
    return not (kind == "table" and name.startswith("_entgldb_"))


engine = sqlalchemy.create_engine(f"sqlite:///{sys.argv[1]}")
models = sqlalchemy.MetaData()
sqlalchemy.Table("t", models, sqlalchemy.Column("id", sqlalchemy.Text, primary_key=True), sqlalchemy.Column("v", sqlalchemy.Text))
sqlalchemy.Table("marker", models, sqlalchemy.Column("id", sqlalchemy.Text, primary_key=True), sqlalchemy.Column("n", sqlalchemy.Integer))
options = {"include_name": include_name} if sys.argv[2:] == ["filtered"] else {}
with engine.connect() as connection:
    differences = compare_metadata(MigrationContext.configure(connection, opts=options), models)
    print(sorted({each[0] for each in differences if isinstance(each, tuple)}))
