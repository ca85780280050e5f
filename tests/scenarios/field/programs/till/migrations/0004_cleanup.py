from django.db import migrations


class Migration(migrations.Migration):
    """A unique constraint goes, and its column with it."""

    dependencies = [("till", "0003_release")]
    operations = [
        migrations.RemoveConstraint("product", "sku_unique"),
        migrations.RemoveField("product", "sku"),
        migrations.RemoveField("product", "note"),
    ]
