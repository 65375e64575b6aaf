FLASK_APP=api.cli.root:create_cli
