"""A Django program at one of its versions.

    python django_program.py DATABASE VERSION CODE

VERSION is the migration that the program was made for; CODE uses the models as they were then, `Category` and `Product`. With
`migrate` as CODE the database is brought to that version.
"""
import os
import sys
import uuid

import django
from django.conf import settings

database, version, code = sys.argv[1:4]
options = {"timeout": 20}
if os.environ.get("DJANGO_TRANSACTION_MODE"):
    options["transaction_mode"] = os.environ["DJANGO_TRANSACTION_MODE"]
settings.configure(
    INSTALLED_APPS=["till"], USE_TZ=True, SECRET_KEY="of a test",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database, "OPTIONS": options}},
)  # fmt: skip
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import OperationalError, connection, transaction  # noqa: E402
from django.db.migrations.executor import MigrationExecutor  # noqa: E402

loader = MigrationExecutor(connection).loader
name = next(name for app, name in loader.graph.nodes if app == "till" and name.startswith(version))
if code == "migrate":
    call_command("migrate", "till", name, verbosity=0)
else:
    models = loader.project_state(("till", name)).apps
    Category, Product = models.get_model("till", "Category"), models.get_model("till", "Product")
    exec(code, {**globals(), "uuid": uuid, "transaction": transaction, "OperationalError": OperationalError})
