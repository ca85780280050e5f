from django.db import migrations, models


def upper(apps, _):
    """A migration of data, through the ORM."""
    for product in apps.get_model("till", "Product").objects.filter(title__startswith="product 1"):
        product.title = product.title.upper()
        product.save()


class Migration(migrations.Migration):
    """What half a year of releases does to a table, in one go."""

    dependencies = [("till", "0002_color")]
    operations = [
        migrations.RenameField("product", "name", "title"),
        migrations.AddField("product", "note", models.TextField(null=True)),
        migrations.AlterField("product", "stock", models.BigIntegerField(default=5)),
        migrations.AlterField("product", "weight", models.CharField(max_length=30, null=True)),
        migrations.RemoveField("product", "legacy"),
        migrations.AddField("product", "sku", models.CharField(max_length=20, null=True)),
        migrations.AddIndex("product", models.Index(fields=["title"], name="product_title")),
        migrations.AddConstraint("product", models.UniqueConstraint(fields=["sku"], name="sku_unique")),
        migrations.AddConstraint("product", models.CheckConstraint(condition=models.Q(price__gte=0), name="price_ok")),
        migrations.RunPython(upper, migrations.RunPython.noop),
    ]
