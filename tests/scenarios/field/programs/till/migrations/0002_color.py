from django.db import migrations, models


class Migration(migrations.Migration):
    """NOT NULL with a default: Django builds the table anew."""

    dependencies = [("till", "0001_initial")]
    operations = [migrations.AddField("product", "color", models.CharField(max_length=20, default="none"))]
