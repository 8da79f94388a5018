"""What is deployed on AWS and Databricks, derived from the asset graph and the settings. Nothing here runs in a lake's runs."""
