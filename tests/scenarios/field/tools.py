"""Tools of others that the soak brings along: a Python with Django, Alembic and SQLAlchemy, and drizzle-kit under Node.

`cargo xtask soak` installs them and says where by these variables; without them the scenarios are skipped.
"""
import os
import pathlib
import subprocess
import unittest

PROGRAMS = pathlib.Path(__file__).parent / "programs"
PYTHON = os.environ.get("ENTGLDB_FIELD_PYTHON")
NODE = os.environ.get("ENTGLDB_FIELD_NODE")

needs_python = unittest.skipUnless(PYTHON, "needs Django and Alembic from the network: run `cargo xtask soak`")
needs_node = unittest.skipUnless(NODE, "needs drizzle-kit from the network: run `cargo xtask soak`")


def run(*words, **environment):
    """The output of a program, which must succeed."""
    done = attempt(*words, **environment)
    if done.returncode:
        raise AssertionError(f"{words[:3]}: {done.stderr[-1500:]}{done.stdout[-500:]}")
    return done.stdout.strip()


def attempt(*words, cwd=None, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, env=environment, check=False, cwd=cwd, stdin=subprocess.DEVNULL)


def django(node, version, code, **environment):
    return run(PYTHON, PROGRAMS / "django_program.py", node.database, version, code, **environment)


def alembic(node, code):
    return attempt(PYTHON, PROGRAMS / "alembic_program.py", node.database, code)


def drizzle_push(node, *filters):
    """`drizzle-kit push`, without questions, as in a deployment."""
    environment = {"DATABASE": str(node.database), "TABLES_FILTER": ",".join(filters)}
    return attempt("npx", "--no-install", "drizzle-kit", "push", "--force", cwd=NODE, **environment)
