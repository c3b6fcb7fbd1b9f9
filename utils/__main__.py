from utils.cli import main

main()
