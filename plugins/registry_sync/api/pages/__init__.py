"""The pages inside Airflow: repositories, their versions, and syncs, as HTML that needs no script."""
