"""How tools rebuild a table in SQLite to change its schema, each as the statements that the tool sends.

`{t}` is the table, `{columns}` those that are copied, `{definition}` the new definition. A shape in a transaction has BEGIN and
COMMIT among its statements; what has none commits statement by statement.
"""

TWELVE_STEPS = [
    "CREATE TABLE {new}({definition})", "INSERT INTO {new}({columns}) SELECT {columns} FROM {t}",
    "DROP TABLE {t}", "ALTER TABLE {new} RENAME TO {t}",
]  # fmt: skip


def twelve_steps(new, before=(), after=()):
    return [*before, *(step.replace("{new}", new) for step in TWELVE_STEPS), *after]


SHAPES = {
    "alembic": twelve_steps("_alembic_tmp_{t}", ["BEGIN"], ["COMMIT"]),
    # Python's sqlite3 module begins no transaction for DDL, so that this is what most programs with Alembic really do.
    "alembic_autocommit": twelve_steps("_alembic_tmp_{t}"),
    "django": twelve_steps("\"new__{t}\"", ["PRAGMA foreign_keys = OFF", "BEGIN"], ["COMMIT", "PRAGMA foreign_keys = ON"]),
    "drizzle": twelve_steps("`__new_{t}`", ["PRAGMA foreign_keys=OFF"], ["PRAGMA foreign_keys=ON"]),
    "prisma": twelve_steps(
        "\"new_{t}\"", ["PRAGMA defer_foreign_keys=ON", "PRAGMA foreign_keys=OFF"],
        ["PRAGMA foreign_keys=ON", "PRAGMA defer_foreign_keys=OFF"],
    ),
    "ef_core": [
        "BEGIN TRANSACTION", "CREATE TABLE \"ef_temp_{t}\" ({definition})",
        "INSERT INTO \"ef_temp_{t}\" ({columns}) SELECT {columns} FROM \"{t}\"", "COMMIT",
        "PRAGMA foreign_keys = 0", "BEGIN TRANSACTION", "DROP TABLE \"{t}\"",
        "ALTER TABLE \"ef_temp_{t}\" RENAME TO \"{t}\"", "COMMIT", "PRAGMA foreign_keys = 1",
    ],
    "room": twelve_steps("`_new_{t}`", ["BEGIN EXCLUSIVE"], ["COMMIT"]),
    "knex": twelve_steps(
        "`_knex_temp_alter123`", ["PRAGMA foreign_keys = OFF", "BEGIN"], ["COMMIT", "PRAGMA foreign_keys = ON"]
    ),
    "typeorm": twelve_steps("\"temporary_{t}\"", ["BEGIN TRANSACTION"], ["COMMIT"]),
    # The rows leave for another table and come back into a new one of the same name. Rails 8 begins so.
    "rails": [
        "BEGIN IMMEDIATE", "CREATE TEMPORARY TABLE \"a{t}\"({definition})", "INSERT INTO \"a{t}\"({columns}) SELECT {columns} FROM \"{t}\"",
        "DROP TABLE \"{t}\"", "CREATE TABLE \"{t}\"({definition})", "INSERT INTO \"{t}\" SELECT * FROM temp.\"a{t}\"",
        "DROP TABLE temp.\"a{t}\"", "COMMIT",
    ],
    # The old table gets another name first, and our triggers go with it.
    "rename_first": [
        "BEGIN", "ALTER TABLE {t} RENAME TO {t}_old", "CREATE TABLE {t}({definition})",
        "INSERT INTO {t}({columns}) SELECT {columns} FROM {t}_old", "DROP TABLE {t}_old", "COMMIT",
    ],
    # Sequelize: into a backup and back, the table dropped in between.
    "sequelize": [
        "CREATE TABLE IF NOT EXISTS `{t}_backup`({definition})", "INSERT INTO `{t}_backup`({columns}) SELECT {columns} FROM `{t}`",
        "DROP TABLE `{t}`", "CREATE TABLE IF NOT EXISTS `{t}`({definition})",
        "INSERT INTO `{t}` SELECT * FROM `{t}_backup`", "DROP TABLE `{t}_backup`",
    ],
}  # fmt: skip


def statements(shape, table, columns, definition):
    """The statements of a shape for one table."""
    filled = {"{t}": table, "{columns}": columns, "{definition}": definition}
    steps = []
    for step in SHAPES[shape]:
        for place, text in filled.items():
            step = step.replace(place, text)
        steps.append(step)
    return steps
