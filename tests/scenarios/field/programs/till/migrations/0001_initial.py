import uuid

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel("Category", [
            ("id", models.UUIDField(primary_key=True, default=uuid.uuid4)),
            ("name", models.CharField(max_length=50, unique=True)),
        ]),
        migrations.CreateModel("Product", [
            ("id", models.UUIDField(primary_key=True, default=uuid.uuid4)),
            ("name", models.CharField(max_length=100)),
            ("price", models.DecimalField(max_digits=10, decimal_places=2, default=0)),
            ("stock", models.PositiveIntegerField(default=0)),
            ("data", models.JSONField(default=dict)),
            ("weight", models.FloatField(null=True)),
            ("legacy", models.CharField(max_length=20, default="old", db_index=True)),
            ("category", models.ForeignKey("till.Category", models.CASCADE, null=True)),
        ]),
    ]  # fmt: skip
