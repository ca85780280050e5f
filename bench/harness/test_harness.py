"""The parts of the harness whose faults would not be seen in its table."""
import hashlib
import unittest

import documents
import report


class Documents(unittest.TestCase):
    def test_they_are_the_same_bytes_everywhere_and_for_good(self):
        text = "".join(sale + "\n" for sale in documents.sales(1000))
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.assertEqual(digest, "6a54130b5bc6669f7e0b8a75232c3b35cb8e16404e0b29b08b61fbdf4d9f3d3f")

    def test_a_larger_set_begins_with_the_smaller_one(self):
        self.assertEqual(list(documents.sales(20))[:10], list(documents.sales(10)))


class Report(unittest.TestCase):
    def test_a_ratio_compares_runs_that_ran_side_by_side(self):
        controls = [{"run": 0, "seconds": 1.0}, {"run": 1, "seconds": 10.0}, {"run": 2, "seconds": 1.0}]
        runs = [{"run": 0, "seconds": 2.0}, {"run": 1, "seconds": 20.0}, {"run": 2, "seconds": 2.0}]
        self.assertEqual(report.ratio(runs, controls, "seconds"), 2.0)

    def test_a_peer_that_failed_is_shown_as_failed(self):
        results = [{"workload": "W1", "size": 1, "peer": "x", "run": 0, "failed": "TimeoutError: why"}]
        self.assertIn("failed: TimeoutError: why", report.table(results))
